"""Images for people: boxes with names and scores, samples of an evaluation, contact sheets."""
