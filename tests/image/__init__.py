"""Building Wholepod's image, also where no base image can be pulled, and the list of what is in it."""
