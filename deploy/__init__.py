"""Build the image of a packaged model, deploy it to Elastic Beanstalk, and roll it back.

``README.md`` in this folder describes the steps; each is a make target that runs a module.
"""
