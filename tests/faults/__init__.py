"""The fault suite; a package, so that its environment ends with its last test, not with the last of all tests."""
