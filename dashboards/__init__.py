"""The program that reads: a Streamlit app over a store and the policies in it."""
