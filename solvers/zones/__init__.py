"""Search zones: boxes of load in which no content is feasible, and the bounds that they give."""
