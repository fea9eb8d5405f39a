"""The coordinator process: driver, ports and adapters around the rules of ``ferry_cluster``."""
