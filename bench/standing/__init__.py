"""The leaderboard: submissions checked, every row scored again by the twin, and the pages of a static site."""
