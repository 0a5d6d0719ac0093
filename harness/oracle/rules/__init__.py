"""The rules, one file a kind: each judges a case and yields findings.

A new rule goes into the file of its kind, or a new one, which `oracle.judge` lists; its finding into `oracle.findings`.
"""
