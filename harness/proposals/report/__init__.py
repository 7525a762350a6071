"""The report of a proposal: both models' answers, their figures and costs, and what to do next.

`comparison` loads, `content` selects, `findings` and `next_steps` explain, and `markdown` and
`formats` render. A report decides nothing and stores nothing. The dashboard and the terminal
draw their own pages from the same content.
"""
