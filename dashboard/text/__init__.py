"""What the pages say: labels, sentences and HTML, without Streamlit."""
