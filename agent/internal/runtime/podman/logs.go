package podman

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"uncloud/agent/internal/runtime"
)

// Streams of a multiplexed answer. A frame is an 8-byte header (stream, three
// zeros, length as a big-endian uint32) and its content.
const (
	streamStdin  = 0 // the echo of what another client typed
	streamStdout = 1
	streamStderr = 2
	streamError  = 3 // a message of Podman itself

	frameHeader = 8
	frameMost   = 16 << 20 // more is not a frame but a misread header
)

// readFrame reads one frame. io.EOF is a clean end.
func readFrame(r io.Reader) (stream byte, content []byte, err error) {
	var header [frameHeader]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return 0, nil, err
	}
	length := binary.BigEndian.Uint32(header[4:])
	if length > frameMost {
		return 0, nil, fmt.Errorf("frame of %d bytes: not a Podman stream", length)
	}
	content = make([]byte, length)
	if _, err := io.ReadFull(r, content); err != nil {
		return 0, nil, fmt.Errorf("frame: %w", err)
	}
	if header[0] == streamError {
		return 0, nil, fmt.Errorf("podman: %s", content)
	}
	return header[0], content, nil
}

// Logs implements runtime.Engine.
func (e *Engine) Logs(ctx context.Context, id string, o runtime.LogOptions, each func(runtime.LogLine) error) error {
	res, err := e.stream(ctx, http.MethodGet, "/containers/"+id+"/logs", logQuery(o), nil, nil)
	if isNotFound(err) {
		return fmt.Errorf("logs of container %.12s: %w", id, runtime.ErrNoContainer)
	}
	if err != nil {
		return e.explain("read logs", err)
	}
	defer res.Body.Close()
	lines := lineReader{}
	for {
		stream, content, err := readFrame(res.Body)
		if errors.Is(err, io.EOF) {
			return lines.flush(each)
		}
		if err != nil {
			return e.explain("read logs", err)
		}
		if err := lines.add(stream == streamStderr, string(content), each); err != nil {
			return err
		}
	}
}

func logQuery(o runtime.LogOptions) url.Values {
	q := url.Values{
		"stdout": {"true"}, "stderr": {"true"}, "timestamps": {"true"},
		"follow": {strconv.FormatBool(o.Follow)},
	}
	if o.Tail >= 0 {
		q.Set("tail", strconv.Itoa(o.Tail))
	}
	if !o.Since.IsZero() {
		q.Set("since", o.Since.UTC().Format(time.RFC3339Nano))
	}
	if !o.Until.IsZero() {
		q.Set("until", o.Until.UTC().Format(time.RFC3339Nano))
	}
	return q
}

// lineMost is where an endless line is cut.
const lineMost = 256 << 10

// lineReader joins the fragments that Podman makes of a long line: each comes
// as a frame of its own, with its own time, and only the last has a line end.
type lineReader struct {
	begun [2]runtime.LogLine // by stream; At is zero when there is none
}

func (r *lineReader) add(stderr bool, frame string, each func(runtime.LogLine) error) error {
	at, text, _ := strings.Cut(frame, " ")
	i := 0
	if stderr {
		i = 1
	}
	line := &r.begun[i]
	if line.At.IsZero() {
		line.At, _ = time.Parse(time.RFC3339Nano, at) // zero: a time we cannot read is no reason to lose the line
		line.Stderr = stderr
	}
	body, ended := strings.CutSuffix(text, "\n")
	line.Text += body
	if !ended && len(line.Text) < lineMost {
		return nil
	}
	done := *line
	*line = runtime.LogLine{}
	done.Text = strings.TrimSuffix(done.Text, "\r")
	return each(done)
}

// flush hands on what had no line end when the log ended.
func (r *lineReader) flush(each func(runtime.LogLine) error) error {
	for _, l := range r.begun {
		if l.Text == "" {
			continue
		}
		if err := each(l); err != nil {
			return err
		}
	}
	return nil
}
