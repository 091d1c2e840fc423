"""What clouds are asked for, for Ray's launcher: named in cluster/, run by Ray's autoscaler on the head.

It knows nothing of the rest of bizllm, and nothing of bizllm imports it.
"""
