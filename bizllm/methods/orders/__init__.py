"""Order mails: what a customer writes → lines of a catalogue's articles, and what a person should look at."""
