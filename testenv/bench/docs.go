package main

func (r *results) updateDocs(dir string) error { return nil }
