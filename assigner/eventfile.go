package assigner

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
)

const (
	// maxEventFile is the size at which the file becomes FILE.old and a new one
	// begins, bytes.
	maxEventFile = 16 << 20
	// maxEventQueue is how many events wait for the disk; others are dropped.
	maxEventQueue = 1024
	// maxEventLine is more than any line, bytes.
	maxEventLine = 64 << 10
)

// eventFile appends events to a file, as JSON, one a line. It is a convenience:
// a disk that fails or is slow costs lines, which are counted, and nothing else.
type eventFile struct {
	path    string
	limit   int64 // maxEventFile, less in tests
	queue   chan Event
	dropped interface{ Inc() }
	log     *slog.Logger

	failing bool // used by run only, as the rest
	f       *os.File
	size    int64
}

// openEventFile opens the file, made if absent, and returns the number of its
// last event.
func openEventFile(path string, dropped interface{ Inc() }, log *slog.Logger) (*eventFile, uint64, error) {
	w := &eventFile{path: path, limit: maxEventFile, queue: make(chan Event, maxEventQueue), dropped: dropped, log: log}
	if err := w.open(); err != nil {
		return nil, 0, fmt.Errorf("events file: %w", err)
	}
	seq, whole, err := lastSeq(path)
	if err == nil && seq == 0 {
		seq, _, err = lastSeq(path + ".old")
	}
	if err == nil && !whole {
		_, err = w.f.WriteString("\n") // ends a line a crash cut off
		w.size++
	}
	if err != nil {
		return nil, 0, errors.Join(fmt.Errorf("events file %s: %w", path, err), w.f.Close())
	}
	return w, seq, nil
}

func (w *eventFile) open() (err error) {
	if w.f, err = os.OpenFile(w.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600); err != nil {
		return err
	}
	info, err := w.f.Stat()
	if err != nil {
		return errors.Join(err, w.f.Close())
	}
	w.size = info.Size()
	return nil
}

// openEvents remembers events, and with a path writes them there.
func openEvents(path string, m *metrics, log *slog.Logger) (*events, error) {
	if path == "" {
		return newEvents(nil, 0), nil
	}
	file, seq, err := openEventFile(path, m.eventsDropped, log)
	if err != nil {
		return nil, err
	}
	return newEvents(file, seq), nil
}

// close closes the file of events that were never run; after a run it does
// nothing.
func (es *events) close() {
	if es.file != nil {
		es.file.close()
	}
}

// lastSeq is the number in the last line of a file that is an event, 0 if there
// is none. whole says that the file does not end within a line.
func lastSeq(path string) (seq uint64, whole bool, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, true, nil
	}
	if err != nil {
		return 0, false, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, false, err
	}
	tail, err := io.ReadAll(io.NewSectionReader(f, max(0, info.Size()-2*maxEventLine), 2*maxEventLine))
	if err != nil {
		return 0, false, err
	}
	for line := range bytes.Lines(tail) {
		var e Event
		if json.Unmarshal(line, &e) == nil { // a line that is cut off or of somebody else says nothing
			seq = max(seq, e.Seq)
		}
	}
	return seq, len(tail) == 0 || tail[len(tail)-1] == '\n', nil
}

// offer gives e to run, if there is room.
func (w *eventFile) offer(e Event) {
	select {
	case w.queue <- e:
	default:
		w.dropped.Inc()
	}
}

// run writes until ctx ends and nothing is queued any more, and closes the file.
func (w *eventFile) run(ctx context.Context) error {
	defer w.close()
	for {
		select {
		case e := <-w.queue:
			w.write(e)
		case <-ctx.Done():
			for {
				select {
				case e := <-w.queue:
					w.write(e)
				default:
					return nil
				}
			}
		}
	}
}

func (w *eventFile) close() {
	if w.f != nil {
		_ = w.f.Close() // what it could not write has been counted
		w.f = nil
	}
}

// write appends e. What goes wrong is logged when it begins.
func (w *eventFile) write(e Event) {
	err := w.append(e)
	if err != nil {
		w.dropped.Inc()
		if !w.failing {
			w.log.Warn("events cannot be written; they are kept in memory only", "file", w.path, "err", err)
		}
		w.close()
	}
	w.failing = err != nil
}

func (w *eventFile) append(e Event) error {
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if len(line) >= maxEventLine {
		return fmt.Errorf("event of %d bytes", len(line))
	}
	if w.f != nil && w.size > 0 && w.size+int64(len(line)) >= w.limit {
		w.close()
		if err := os.Rename(w.path, w.path+".old"); err != nil {
			return err
		}
	}
	if w.f == nil {
		if err := w.open(); err != nil {
			return err
		}
	}
	n, err := w.f.Write(append(line, '\n'))
	w.size += int64(n)
	return err
}
