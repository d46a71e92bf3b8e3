"""The data-path worker: OpenAI HTTP in, OpenAI HTTP engines out; knows no database, broker, gRPC or sibling
service.
"""
