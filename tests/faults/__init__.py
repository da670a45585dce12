"""The fault suite; a package, so that its house is closed after its last test and not after that of all tests."""
