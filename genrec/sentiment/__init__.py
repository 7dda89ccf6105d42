"""Estimate whether reviews and comments are positive, and use it in histories."""

from genrec.sentiment.classifier import WAYS, Sentiment
from genrec.sentiment.measures import Measured, measure
from genrec.sentiment.reviews import mark_sentiment

__all__ = ["WAYS", "Measured", "Sentiment", "mark_sentiment", "measure"]
