package broker

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
)

const (
	// readTime is the time limit for receiving the request, and for sending the
	// reply. Both fit into a socket buffer.
	readTime = 2 * time.Second
	// workTime is the time limit for one request, with the wait in the queue. A hook
	// gives up after 10 seconds by default.
	workTime = 30 * time.Second
	// acceptPause is the pause before the next accept(2) when the host or the process
	// has no file descriptors left.
	acceptPause = 50 * time.Millisecond
)

// Server attaches containers for the authorized callers that connect to it.
type Server struct {
	Local     hook.CallerAttacher
	AllowList *network.AllowList
	Log       *slog.Logger // the full reason of every refusal

	scheduler scheduler
	failures  failures
	work      sync.WaitGroup
}

// Serve accepts callers on l until ctx ends. Then it closes l, finishes the requests in
// progress, and returns nil. It returns an error if accepting fails.
func (s *Server) Serve(ctx context.Context, l *net.UnixListener) error {
	a, err := newAcceptor(l)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = errors.Join(a.Close(), l.Close()) })
	defer stop()
	go pollAllowList(ctx, s.AllowList)
	for {
		fd, err := a.accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = unix.Close(fd)
			}
			s.work.Wait()
			return nil
		case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ENOBUFS),
			errors.Is(err, unix.ENOMEM):
			s.Log.Error("cannot accept callers", "err", err)
			<-time.After(acceptPause)
		case errors.Is(err, unix.ECONNABORTED):
		case err != nil:
			s.work.Wait()
			return fmt.Errorf("accept callers: %w", err)
		default:
			s.handle(context.WithoutCancel(ctx), fd)
		}
	}
}

// handle charges the caller's budget, registers its connection and answers it in a new
// goroutine. A caller over its limits gets an error reply, and its request is not read:
// accepting must never wait for a caller, and must cost less than connecting.
func (s *Server) handle(ctx context.Context, fd int) {
	cred, err := peerOf(fd)
	if err != nil {
		s.Log.Debug("rejected a caller", "err", err)
		_ = unix.Close(fd)
		return
	}
	charged := s.budgetUID(fd, cred.Uid)
	if !s.scheduler.spend(charged, time.Now()) {
		_, _ = unix.Write(fd, rateLimitReply) // does not block: the socket buffer is empty
		_ = unix.Close(fd)
		return
	}
	log := s.Log.With("uid", cred.Uid, "pid", cred.Pid)
	c, caller, err := s.connOf(fd, cred)
	if err != nil {
		log.Error("cannot accept the caller", "err", err)
		return
	}
	sess, err := s.scheduler.connect(charged, c)
	if err != nil {
		log.Debug("rejected a caller", "err", err)
		_ = send(c, reply{Version: version, Error: err.Error(), Later: true}) // does not block either
		_ = c.Close()
		return
	}
	s.work.Go(func() {
		defer s.scheduler.disconnect(sess)
		defer func() { _ = c.Close() }()
		s.answer(ctx, log, c, sess, caller)
	})
}

// connOf returns a net.UnixConn for the socket fd, with the caller. It closes fd, also
// if it returns an error.
func (s *Server) connOf(fd int, cred *unix.Ucred) (*net.UnixConn, hook.Caller, error) {
	refuseRights(fd)
	f := os.NewFile(uintptr(fd), "caller")
	defer f.Close()
	caller, err := callerOf(fd, cred)
	if err != nil {
		return nil, caller, err
	}
	c, err := net.FileConn(f)
	if err != nil {
		return nil, caller, err
	}
	return c.(*net.UnixConn), caller, nil
}

func (s *Server) answer(ctx context.Context, log *slog.Logger, c *net.UnixConn, sess *session, caller hook.Caller) {
	ctx, cancel := context.WithTimeoutCause(ctx, workTime, fmt.Errorf("not done after %s", workTime))
	defer cancel()
	_ = c.SetReadDeadline(time.Now().Add(readTime))
	b, err := receive(c)
	s.scheduler.markActive(sess)
	if err != nil && !errors.Is(err, errTooLong) {
		log.Debug("received no request", "err", err)
		return
	}
	r := s.reply(ctx, log, sess, caller, b, err)
	_ = c.SetWriteDeadline(time.Now().Add(readTime))
	if err := send(c, r); err != nil {
		log.Warn("the caller did not wait for the reply", "err", err)
	}
}

// reply waits for the user's turn, and then decodes the message b and carries it out.
// Decoding waits, too: a hundred messages of one user take time. err is the error of
// receiving b.
func (s *Server) reply(
	ctx context.Context, log *slog.Logger, sess *session, caller hook.Caller, b []byte, err error,
) (r reply) {
	var m *request
	done, late := s.scheduler.acquire(ctx, sess.user)
	if late == nil {
		defer done()
	} else {
		err = late
	}
	if err == nil {
		m, err = decode(b)
	}
	if err == nil {
		log = log.With("verb", m.Verb, "container", m.Container)
		r, err = s.do(ctx, log, sess, caller, m)
	}
	r.Version = version
	if err != nil {
		r = reply{Version: version, Error: s.errorText(log, err)}
		container := ""
		if m != nil {
			container = m.Container
		}
		s.failures.add(caller.UID, sess.uid, container, r.Error)
	}
	return r
}

func (s *Server) do(
	ctx context.Context, log *slog.Logger, sess *session, caller hook.Caller, m *request,
) (r reply, err error) {
	switch m.Verb {
	case verbWhy:
		r.Failures = s.failures.forUID(caller.UID)
		return r, nil
	case verbTell:
		s.failures.add(caller.UID, sess.uid, m.Container, m.Error)
		return r, nil
	case verbDetach:
		if err = s.Local.DetachFor(ctx, caller, m.Container); err == nil {
			log.Info("detached")
		}
		return r, err
	}
	got, err := s.Local.AttachFor(ctx, caller, m.request())
	for _, a := range got {
		log.Info("attached", "network", a.Network, "interface", a.Interface, "addresses", a.Addrs, "mac", a.MAC,
			"verdict", a.Verdict.Code, "attachment", a.ID)
		r.Attachments = append(r.Attachments, grantedOf(a))
	}
	return r, err
}

// errorText logs why a request failed and returns the text for the caller. All refusals
// have the same text; otherwise it would reveal which networks, processes and namespaces
// of other users exist. The number in it lets the administrator find the reason in the
// log.
func (s *Server) errorText(log *slog.Logger, err error) string {
	if !errors.Is(err, hook.ErrRefused) {
		log.Warn("failed", "err", err)
		return err.Error()
	}
	var b [4]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	number := hex.EncodeToString(b[:])
	log.Warn("refused", "number", number, "err", err)
	return fmt.Sprintf("refused: the network must be one that allows you, and the container your own "+
		"(reason: number %s in the broker's log)", number)
}
