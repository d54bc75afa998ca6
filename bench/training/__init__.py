"""Training of the predictors: labelled contents, model cards, pictures of trees."""
