package admin

import (
	"io"
	"log/slog"
	"net/http"
	"time"

	"golang.org/x/time/rate"
	"gopkg.in/natefinch/lumberjack.v2"
)

// Audit writes down what was done by the admin API: each request but those that only
// look, with who made it and how it ended, and who was refused. A nil *Audit writes
// nothing. It is safe for concurrent use.
type Audit struct {
	log     *slog.Logger // of the daemon
	file    *slog.Logger // nil: there is none
	refuses *rate.Limiter
	closer  io.Closer
}

const (
	auditMegabytes = 16
	auditFiles     = 8 // besides the one written to
	// refusedPerSecond are written down at most, so that strangers do not fill disks.
	refusedPerSecond = 5
)

// OpenAudit writes to log and, if file is not empty, a line of JSON each to file, which
// is renamed at 16 MiB; the last 8 are kept.
func OpenAudit(file string, log *slog.Logger) (*Audit, error) {
	a := &Audit{log: log, refuses: rate.NewLimiter(refusedPerSecond, 10*refusedPerSecond)}
	if file == "" {
		return a, nil
	}
	w := &lumberjack.Logger{Filename: file, MaxSize: auditMegabytes, MaxBackups: auditFiles}
	if _, err := w.Write(nil); err != nil { // it can be opened
		return nil, err
	}
	a.file, a.closer = slog.New(slog.NewJSONHandler(w, nil)), w
	return a, nil
}

// Close closes the file.
func (a *Audit) Close() error {
	if a == nil || a.closer == nil {
		return nil
	}
	return a.closer.Close()
}

func (a *Audit) write(level slog.Level, r *http.Request, text string, attrs ...any) {
	attrs = append(attrs, "remote", r.RemoteAddr, "method", r.Method, "path", r.URL.Path)
	for _, log := range []*slog.Logger{a.log, a.file} {
		if log != nil {
			log.Log(r.Context(), level, text, attrs...)
		}
	}
}

// heard is h with what it does written down as done by a caller.
func (a *Audit) heard(h http.Handler, caller Caller) http.Handler {
	if a == nil {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if needed(r) == MayLook {
			h.ServeHTTP(w, r)
			return
		}
		start, s := time.Now(), &statusWriter{ResponseWriter: w, status: http.StatusOK}
		defer func() {
			a.write(slog.LevelInfo, r, "admin action", "caller", caller.Name, "role", caller.Right.String(),
				"status", s.status, "elapsed", time.Since(start))
		}()
		h.ServeHTTP(s, r)
	})
}

func (a *Audit) refused(r *http.Request, caller string, err error) {
	if a != nil && a.refuses.Allow() {
		a.write(slog.LevelWarn, r, "admin request refused", "caller", caller, "err", err)
	}
}

// statusWriter notes the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	if status >= 200 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
