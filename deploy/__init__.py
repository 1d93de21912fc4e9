"""Delivery: the image of a packaged model, its way to Elastic Beanstalk, and the way back.

One module a question; every one is a program, and the Makefile names them.
"""
