"""The run file: its tables and views (.sql), and questions to it. No torch."""
