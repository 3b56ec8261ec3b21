package boltstore

import "os"

// Audit reads a whole file as a visit does that finds no seal.
func Audit(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	_, err = check(f, fi.Size())
	return err
}

// Options are what the file is opened with.
var Options = options
