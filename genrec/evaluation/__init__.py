"""Evaluate and compare recommenders under named protocols."""
