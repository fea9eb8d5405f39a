"""The wire contract of Hyperferry: protocol definitions and the stubs generated from them."""
