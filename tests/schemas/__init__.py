"""Schemas as people have them, each with lists that go round circles of songs, so that the right answer is known."""
