"""What people do on the pages: dialogs and buttons that call `harness.control`, and the fields
that they share.
"""
