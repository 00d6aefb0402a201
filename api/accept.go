package api

import (
	"mime"
	"net/http"
	"strings"
)

// ParseAccept reads the Accept headers of r. json is true if the client takes
// application/json, a wildcard that covers it, or said nothing at all; ndjson
// is true if it names application/x-ndjson. Where both are true NDJSON is
// what the ecosystem's servers send. Both false with a nil error means that
// the client named only types we do not have.
//
// Quality values are ignored, because the reference ignores them and clients
// have come to rely on it (q=0 included). err is set if an element is not a
// media type; its text is that of package mime.
func ParseAccept(r *http.Request) (json, ndjson bool, err error) {
	if values := r.Header["Accept"]; len(values) == 1 {
		switch values[0] { // what nearly everybody sends
		case MediaJSON, "*/*":
			return true, false, nil
		case MediaNDJSON:
			return false, true, nil
		}
	}
	named := false
	for _, header := range r.Header.Values("Accept") {
		for element := range strings.SplitSeq(header, ",") {
			if strings.TrimSpace(element) == "" {
				continue // RFC 9110 5.6.1: empty list elements are ignored
			}
			named = true
			mediaType, _, err := mime.ParseMediaType(element)
			if err != nil {
				return false, false, err
			}
			switch mediaType {
			case MediaJSON, "*/*", "application/*":
				json = true
			case MediaNDJSON:
				ndjson = true
			}
		}
	}
	return json || !named, ndjson, nil
}
