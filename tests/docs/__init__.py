"""The pages for operators, followed step by step."""
