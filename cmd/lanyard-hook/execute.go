package main

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// lanyardFile is the program lanyard of the installed system. The build sets it.
var lanyardFile = "/usr/local/bin/lanyard"

// programs are the files to execute, the first that exists: the one that was named, else the one
// in the hook's directory, else the installed one.
func (o options) programs() []string {
	if o.lanyard != "" {
		return []string{o.lanyard}
	}
	self, err := os.Executable()
	if err != nil {
		return []string{lanyardFile}
	}
	return []string{filepath.Join(filepath.Dir(self), "lanyard"), lanyardFile}
}

// execute replaces this process by "lanyard attach", with the state on its stdin and the rest of
// the time. It returns only if that fails.
func (o options) execute(state []byte) error {
	left := o.left()
	if left <= 0 {
		return errors.New(o.late())
	}
	if err := setStdin(state); err != nil {
		return errors.New("pass the state on: " + err.Error())
	}
	args := []string{"lanyard"}
	if o.root != "" {
		args = append(args, "--root", o.root)
	}
	args = append(args, "attach", "--timeout", left.String(), o.stage)
	var failure string
	for _, program := range o.programs() {
		err := unix.Exec(program, args, os.Environ())
		failure = "execute " + program + ": " + err.Error()
		if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EACCES) {
			break
		}
	}
	return errors.New(failure + ": install lanyard there, or name it with --lanyard")
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
