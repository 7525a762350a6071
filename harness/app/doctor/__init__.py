"""The doctor's looks at providers: each makes small real requests and reports what came back."""
