package main

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// attachFile is the program that attaches without a service. It is in the hook's directory, unless
// its name is a path.
var attachFile = "lanyard-attach"

// program returns the file to execute: the one that was named, else attachFile.
func (o options) program() (string, error) {
	switch {
	case o.attach != "":
		return o.attach, nil
	case filepath.IsAbs(attachFile):
		return attachFile, nil
	}
	self, err := os.Executable()
	return filepath.Join(filepath.Dir(self), attachFile), err
}

// execute replaces this process by lanyard-attach, with the state on its stdin and the rest of
// the time. It returns only if that fails.
func (o options) execute(state []byte) error {
	left := o.left()
	if left <= 0 {
		return errors.New(o.late())
	}
	if err := setStdin(state); err != nil {
		return errors.New("pass the state on: " + err.Error())
	}
	program, err := o.program()
	if err != nil {
		return errors.New("find this program's directory: " + err.Error())
	}
	args := []string{"lanyard-attach", "--timeout", left.String()}
	if o.root != "" {
		args = append(args, "--root", o.root)
	}
	err = unix.Exec(program, append(args, o.stage), os.Environ())
	return errors.New("execute " + program + ": " + err.Error() + ": install it there, or name it with --attach")
}

// setStdin makes a file in memory with the state this process's stdin.
func setStdin(state []byte) error {
	fd, err := unix.MemfdCreate("lanyard-state", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "lanyard-state")
	defer f.Close()
	if _, err := f.Write(state); err != nil {
		return err
	}
	if _, err := f.Seek(0, 0); err != nil {
		return err
	}
	return unix.Dup3(fd, 0, 0)
}
