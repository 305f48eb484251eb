"""What the report is made of: its inputs, its numbers, its pictures, its charts, its page."""
