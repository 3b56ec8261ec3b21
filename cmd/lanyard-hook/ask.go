package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook/service/wire"
)

// maxReply is the maximum length of what the hook reads of a reply, in bytes.
const maxReply = 16 << 10

const (
	// connectTime limits the wait for a place in the service's backlog.
	connectTime = time.Second
	// signTime is how long the service may give no sign of life.
	signTime  = 3 * wire.SignInterval
	retryWait = 100 * time.Millisecond
)

// errWithout is returned if the hook has to go on without the service, and nothing is wrong: no
// service listens, or the request is not for it.
var errWithout = errors.New("no service")

// ask has the service carry out the stage, prints what it says, and returns the exit status. After
// an error the caller goes on without the service, which may have begun: the next attach
// joins an attachment that exists, and undoes one that a killed service has begun.
func (o options) ask(state []byte) (status int, err error) {
	for {
		reply, err := o.exchange(state)
		if err != nil {
			return 0, err
		}
		text := string(reply[1:])
		switch {
		case reply[0] == wire.Done:
			_, _ = os.Stderr.WriteString(text)
			return 0, nil
		case reply[0] == wire.Failed, reply[0] == wire.Later && time.Since(o.start) > o.timeout:
			say(text)
			return 1, nil
		case reply[0] == wire.NotMine && text == "":
			return 0, errWithout
		case reply[0] == wire.NotMine:
			return 0, errors.New("the service: " + text)
		case reply[0] != wire.Later:
			return 0, errors.New("the service is of another release: run \"systemctl restart lanyard\"")
		}
		time.Sleep(retryWait)
	}
}

// exchange sends the request and returns the reply, which is not empty.
func (o options) exchange(state []byte) ([]byte, error) {
	request := wire.HookRequest(o.stage, max(o.left(), time.Millisecond), os.Getenv("LANYARD_TRACE") == "1", state)
	if len(request) > wire.MaxMessage {
		return nil, errWithout
	}
	service, err := o.dial()
	if err != nil {
		return nil, err
	}
	defer service.Close()
	// The service may have replied and closed without reading. What it said is next in the queue.
	_, werr := service.Write(request)
	for {
		reply, err := receive(service)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, errors.New("the service gave no sign of life for " + signTime.String())
		case err != nil:
			return nil, errors.New("the service: " + err.Error())
		case len(reply) == 0 && werr != nil:
			return nil, errors.New("the service: " + werr.Error())
		case len(reply) == 0:
			return nil, errors.New("the service ended before it replied")
		case reply[0] != wire.StillBusy:
			return reply, nil
		}
	}
}

// dial connects to the service, and returns the socket as a file that the runtime polls. While a
// thread waits in a system call instead, the runtime's monitor wakes up every 70 µs, and takes
// processor time from the service.
func (o options) dial() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err = o.connect(fd); err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "service"), nil
}

// connect connects to the service. It returns errWithout if none listens, and an error if it is
// not root who does.
func (o options) connect(fd int) error {
	limit := unix.NsecToTimeval(int64(connectTime))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit); err != nil {
		return err
	}
	path := "/run/lanyard/lanyard.sock"
	if o.root != "" {
		path = filepath.Join(o.root, "run/lanyard.sock")
	}
	err := retry(func() error { return unix.Connect(fd, &unix.SockaddrUnix{Name: path}) })
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ECONNREFUSED):
		return errWithout
	case errors.Is(err, unix.EAGAIN):
		return errors.New("the service accepted no connection within " + connectTime.String())
	case err != nil:
		return errors.New("connect to the service at " + path + ": " + err.Error())
	}
	return checkRoot(fd, path)
}

// checkRoot stops a user who listens in the place of the service, and would be told what root's
// containers are, and would say that they are attached. In a user namespace root has no uid, but
// there the user could replace the hook itself.
func checkRoot(fd int, path string) error {
	peer, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return err
	}
	if peer.Uid == 0 {
		return nil
	}
	ids, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return err
	}
	if strings.Join(strings.Fields(string(ids)), " ") != "0 0 4294967295" {
		return nil
	}
	return errors.New("at " + path + " listens uid " + strconv.Itoa(int(peer.Uid)) + ", not root: remove the socket")
}

// receive receives one packet, which is empty if the service has closed the connection.
func receive(service *os.File) ([]byte, error) {
	if err := service.SetReadDeadline(time.Now().Add(signTime)); err != nil {
		return nil, err
	}
	b := make([]byte, maxReply)
	n, err := service.Read(b)
	if errors.Is(err, unix.ECONNRESET) {
		n, err = service.Read(b) // the service has closed before it read all: its reply is next
	}
	if errors.Is(err, io.EOF) {
		n, err = service.Read(b) // it may have replied in the moment between the look and the end
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return b[:n], err
}

// retry calls f again while a signal interrupts it.
func retry(f func() error) (err error) {
	for {
		if err = f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
