"""The one door to the API server: client, reflectors, writer, leader election."""
