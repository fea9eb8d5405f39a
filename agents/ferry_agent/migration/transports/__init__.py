"""How pages travel: one module for each performance option, all behind one port."""
