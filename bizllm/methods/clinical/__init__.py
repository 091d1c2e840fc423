"""What stands in a medical note, by rules and small lists, in English and Chinese: nothing here is a diagnosis."""
