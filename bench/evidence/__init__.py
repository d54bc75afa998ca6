"""What real GPUs have served: published runs and one's own by what they were asked for, beside what a plan asks of a GPU."""
