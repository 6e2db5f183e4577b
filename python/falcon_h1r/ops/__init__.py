"""One public function an operation, dispatched to a backend."""
