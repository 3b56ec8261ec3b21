package messenger

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

const (
	// connectTime limits the wait for a place in the service's backlog.
	connectTime = time.Second
	// signTime is how long the service may give no sign of life.
	signTime  = 3 * wire.SignInterval
	retryWait = 100 * time.Millisecond
)

// ErrNoService is returned if the caller has to go on without the service, and nothing is wrong: no
// service listens, the service is not responsible for the container, or the request is longer than a
// message may be.
var ErrNoService = errors.New("no service")

// AskHook has the service carry out a stage of the hook. The results are those of ask.
func (m Messenger) AskHook(stage string, state []byte) (text string, ok bool, err error) {
	return m.ask(func(left time.Duration) []byte {
		return wire.HookRequest(stage, left, os.Getenv("LANYARD_TRACE") == "1", state)
	})
}

// ask has the service carry out a request, and returns its output, or, if ok is false, the reason for
// the failure. request returns the message, with the remaining time. After an error, which is
// ErrNoService if nothing is wrong, the caller goes on without the service. The service may have begun:
// the next attach joins an attachment that exists, and undoes one that a killed service has begun.
func (m Messenger) ask(request func(left time.Duration) []byte) (text string, ok bool, err error) {
	for {
		reply, err := m.exchange(request(max(m.Left(), time.Millisecond)))
		if err != nil {
			return "", false, err
		}
		text := string(reply[1:])
		switch {
		case reply[0] == wire.Done:
			return text, true, nil
		case reply[0] == wire.Failed, reply[0] == wire.Later && time.Since(m.Start) > m.Timeout:
			return text, false, nil
		case reply[0] == wire.NotMine && text == "":
			return "", false, ErrNoService
		case reply[0] == wire.NotMine:
			return "", false, errors.New("the service declined: " + text)
		case reply[0] != wire.Later:
			return "", false, errors.New("the service is of another release: run \"systemctl restart lanyard\"")
		}
		time.Sleep(retryWait)
	}
}

// exchange sends the request and returns the reply, which is not empty.
func (m Messenger) exchange(request []byte) ([]byte, error) {
	if len(request) > wire.MaxMessage {
		return nil, ErrNoService
	}
	service, err := m.dial()
	if err != nil {
		return nil, err
	}
	defer service.Close()
	// The service may have replied and closed without reading. Its reply is still in the socket's queue.
	_, werr := service.Write(request)
	for {
		reply, err := receive(service)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, errors.New("the service gave no sign of life for " + signTime.String())
		case err != nil:
			return nil, errors.New("read from the service: " + err.Error())
		case len(reply) == 0 && werr != nil:
			return nil, errors.New("write to the service: " + werr.Error())
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
func (m Messenger) dial() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err = m.connect(fd); err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "service"), nil
}

// connect connects to the service. It returns ErrNoService if none listens, and an error if the
// listener is not root.
func (m Messenger) connect(fd int) error {
	limit := unix.NsecToTimeval(int64(connectTime))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit); err != nil {
		return err
	}
	path := "/run/lanyard/lanyard.sock"
	if m.Root != "" {
		path = filepath.Join(m.Root, "run/lanyard.sock")
	}
	err := retry(func() error { return unix.Connect(fd, &unix.SockaddrUnix{Name: path}) })
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ECONNREFUSED):
		return ErrNoService
	case errors.Is(err, unix.EAGAIN):
		return errors.New("the service accepted no connection within " + connectTime.String())
	case err != nil:
		return errors.New("connect to the service at " + path + ": " + err.Error())
	}
	return checkRoot(fd, path)
}

// checkRoot returns an error if the listener is not root: a user who listens in place of the service
// would read the states of root's containers, and could report attachments that do not exist. In a user
// namespace root has no uid, but there the user could replace the hook itself.
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
	return errors.New("uid " + strconv.Itoa(int(peer.Uid)) + ", not root, listens at " + path + ": remove the socket")
}

// receive receives one packet, which is empty if the service has closed the connection.
func receive(service *os.File) ([]byte, error) {
	if err := service.SetReadDeadline(time.Now().Add(signTime)); err != nil {
		return nil, err
	}
	b := make([]byte, wire.MaxMessage)
	n, err := service.Read(b)
	if errors.Is(err, unix.ECONNRESET) {
		n, err = service.Read(b) // the service has closed before it read all: its reply is next
	}
	if errors.Is(err, io.EOF) {
		n, err = service.Read(b) // it may have replied between the read and its close
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
