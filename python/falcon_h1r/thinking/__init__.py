"""Parallel thinking: DeepConf policy, answers, results."""
