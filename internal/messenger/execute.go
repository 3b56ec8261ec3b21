package messenger

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// AttachFile is the program that carries out a request without a service. It is in the directory of
// this program or in ../lanyard, unless its name is a path.
var AttachFile = "lanyard-attach"

// Execute replaces this process by lanyard-attach, with input on its stdin and the rest of the time.
// named is the program's file; "" means AttachFile. Execute returns only if it fails.
func (m Messenger) Execute(named string, input []byte, args ...string) error {
	left := m.Left()
	if left <= 0 {
		return errors.New(m.Late())
	}
	if err := setStdin(input); err != nil {
		return errors.New("pass the input on: " + err.Error())
	}
	program, err := find(named)
	if err != nil {
		return errors.New("find this program's directory: " + err.Error())
	}
	argv := []string{"lanyard-attach", "--timeout", left.String()}
	if m.Root != "" {
		argv = append(argv, "--root", m.Root)
	}
	err = unix.Exec(program, append(argv, args...), os.Environ())
	return errors.New("execute " + program + ": " + err.Error() + ": " + m.Remedy)
}

// find returns the file of lanyard-attach. The plugins are in directories of their engines' next to
// that of lanyard-attach.
func find(named string) (string, error) {
	switch {
	case named != "":
		return named, nil
	case filepath.IsAbs(AttachFile):
		return AttachFile, nil
	}
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	dir := filepath.Dir(self)
	if own := filepath.Join(dir, AttachFile); unix.Access(own, unix.X_OK) == nil {
		return own, nil
	}
	return filepath.Join(dir, "../lanyard", AttachFile), nil
}

// setStdin makes a file in memory with the input this process's stdin.
func setStdin(input []byte) error {
	fd, err := unix.MemfdCreate("lanyard-input", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "lanyard-input")
	defer f.Close()
	if _, err := f.Write(input); err != nil {
		return err
	}
	if _, err := f.Seek(0, 0); err != nil {
		return err
	}
	return unix.Dup3(fd, 0, 0)
}
