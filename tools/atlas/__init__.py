"""The parts of tools/geodata: tables of networks, and databases made of them."""
