"""SQL databases: reads new rows of a table or query in the order of a cursor column. Never writes."""
