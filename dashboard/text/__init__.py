"""What the pages say: labels, sentences and HTML, made from the read models
without Streamlit.
"""
