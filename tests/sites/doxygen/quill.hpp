/// @file
/// What writes, and what is written on.

/// Everything of Quill.
namespace quill {

/// What is written on.
class Sheet {
public:
    /// Width in millimetres.
    int width() const;
};

/// What writes; see Sheet.
class Feather {
public:
    /// Writes on a sheet.
    void write(Sheet &sheet);
};

/// A page of any kind of ink.
template <typename Ink> class Page {
public:
    /// The ink that it is written with.
    Ink ink;
};

/// A page with a red line.
template <> class Page<int> : public Sheet {};

}  // namespace quill
