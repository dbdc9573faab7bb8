package org.quill.ink;

/** Colours of ink. */
public enum Ink {
    /** The usual one. */
    BLACK,
    /** For corrections. */
    RED
}
