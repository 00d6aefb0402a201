// Package objects says where files are kept, by a URL: a directory, or a part
// of a bucket on a server that speaks S3, and connects to the latter.
//
// Credentials come from the environment (AWS_ACCESS_KEY_ID and the like), the
// shared files of AWS or the machine's role; never from a URL.
package objects
