package service

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook/service/wire"
)

// socketType is the name of SOCK_SEQPACKET in package net.
const socketType = "unixpacket"

// errTooLong is returned by send and receive for a message of more than wire.MaxMessage bytes.
var errTooLong = fmt.Errorf("message is over %d bytes", wire.MaxMessage)

// receive reads one message. It passes no buffer for control data, so the kernel
// drops file descriptors that are sent with the message. It returns io.EOF at the end
// of the stream and errTooLong for a message that does not fit.
func receive(c *net.UnixConn) ([]byte, error) {
	b := make([]byte, wire.MaxMessage)
	n, _, flags, _, err := c.ReadMsgUnix(b, nil)
	switch {
	case err != nil:
		return nil, err
	case flags&unix.MSG_TRUNC != 0:
		return nil, errTooLong
	case n == 0:
		return nil, io.EOF // an empty message looks the same
	}
	return b[:n], nil
}

// send sends one message in JSON.
func send(c *net.UnixConn, message any) error { return sendBytes(c, encode(message)) }

// encode returns a message in JSON.
func encode(message any) []byte {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	if err := e.Encode(message); err != nil {
		panic(err) // messages are structs of strings and numbers
	}
	return text.Bytes()
}

// sendBytes sends one message.
func sendBytes(c *net.UnixConn, b []byte) error {
	if len(b) > wire.MaxMessage {
		return errTooLong
	}
	n, err := c.Write(b)
	if err == nil && n < len(b) {
		err = fmt.Errorf("message was truncated: sent %d of %d bytes", n, len(b))
	}
	return err
}

// sendText sends a reply that is not JSON.
func sendText(c *net.UnixConn, kind byte, text string) error {
	return sendBytes(c, append([]byte{kind}, text...))
}
