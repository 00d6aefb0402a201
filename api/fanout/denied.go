package fanout

import (
	"errors"

	"github.com/signpost-index/signpost/api/find"
)

// deniedBy is the denial that err is; nil if it is none.
func deniedBy(err error) *find.DeniedError {
	var denied *find.DeniedError
	errors.As(err, &denied)
	return denied
}

// denial is what of several backends' denials of one question counts.
type denial struct {
	name string // of the backend
	err  *find.DeniedError
}

// add takes the denial of a backend, nil for none. One of what was asked for comes
// before one of all that a backend knows of it, and then the first by name, in
// whatever order they come.
func (d *denial) add(name string, err *find.DeniedError) {
	switch {
	case err == nil:
	case d.err == nil, err.Whole() && !d.err.Whole(), err.Whole() == d.err.Whole() && name < d.name:
		d.name, d.err = name, err
	}
}

// whole tells whether what was asked for is denied, whatever others know of it.
func (d *denial) whole() bool { return d.err != nil && d.err.Whole() }
