"""OPC UA: follows variables of a server by subscription. Never writes, never calls a method, never patches asyncua."""
