//! Views by robots: by kind and name, and by page and group.

use super::cells::Cells;
use super::texts::Text;
use super::{Rows, WindowState};
use foldhash::fast::FixedState;
use schemas::caps::MORE_PATH;
use schemas::classes::{BotClass, ClassName, RobotGroup, Source};
use schemas::tables::{RobotDailyRow, RobotPageDailyRow};
use std::hash::BuildHasher;

pub(super) struct RobotKey {
    project_day: u32,
    kind: BotClass,
    name: Text,
    source: Source,
}

pub(super) struct RobotPageKey {
    project_day: u32,
    path: Text,
    group: RobotGroup,
    source: Source,
}

impl WindowState {
    /// Counts a view by a robot; without its name if the day has as many robots as it may.
    pub(super) fn robot(&mut self, project_day: u32, kind: BotClass, name: &str, source: Source) {
        let mut name = self.texts.intern(name);
        let hash = |hasher: &FixedState, name: Text| hasher.hash_one((project_day, kind as i32, name, source as i32));
        let find = |robots: &Cells<RobotKey, u64>, hash: u64, name: Text| {
            robots.find(hash, |key| {
                (key.project_day, key.kind, key.name, key.source) == (project_day, kind, name, source)
            })
        };
        let mut found = find(&self.robots, hash(&self.hasher, name), name);
        if found.is_none() && name != Text::EMPTY {
            let robots = &mut self.project_days.peek(project_day).robots;
            if *robots < self.limits.values {
                *robots += 1;
            } else {
                name = Text::EMPTY;
                found = find(&self.robots, hash(&self.hasher, name), name);
            }
        }
        let hash = hash(&self.hasher, name);
        let position = found.unwrap_or_else(|| self.robots.begin(hash, RobotKey { project_day, kind, name, source }));
        *self.robots.change(position) += 1;
    }

    /// Counts a robot's view of a page; in the overflow if the day has as many pages of robots as it may.
    pub(super) fn robot_page(&mut self, project_day: u32, group: RobotGroup, path: &str, source: Source) {
        let hash = self.hasher.hash_one((project_day, group as u8, path.as_bytes(), source as i32));
        let texts = &self.texts;
        let same = |key: &RobotPageKey| {
            (key.project_day, key.group, key.source) == (project_day, group, source)
                && texts.get(key.path) == path.as_bytes()
        };
        let found = self.robot_pages.find(hash, same);
        if found.is_none() && path != MORE_PATH {
            let pages = &mut self.project_days.peek(project_day).robot_pages;
            if *pages >= self.limits.pages {
                return self.robot_page(project_day, group, MORE_PATH, source);
            }
            *pages += 1;
        }
        let position = found.unwrap_or_else(|| {
            let path = self.texts.intern(path);
            self.robot_pages.begin(hash, RobotPageKey { project_day, path, group, source })
        });
        *self.robot_pages.change(position) += 1;
    }

    /// The rows of everything of robots that changed since the last freeze.
    pub(super) fn freeze_robots(&mut self, rows: &mut Rows) {
        let (stream, window_start, next_offset) = (self.stream.0, self.start.offset, self.next_offset);
        let (texts, project_days) = (&self.texts, &self.project_days);
        self.robots.freeze(|key, &mut views| {
            let of = project_days.key(key.project_day);
            rows.robot.push(RobotDailyRow {
                project: texts.to_string(of.project),
                day: of.day.0,
                kind: key.kind.class_name().to_owned(),
                name: texts.to_string(key.name),
                views,
                stream,
                window_start,
                next_offset,
                source: key.source,
            });
        });
        self.robot_pages.freeze(|key, &mut views| {
            let of = project_days.key(key.project_day);
            rows.robot_page.push(RobotPageDailyRow {
                project: texts.to_string(of.project),
                day: of.day.0,
                path: texts.to_string(key.path),
                robot_group: key.group.name().to_owned(),
                views,
                stream,
                window_start,
                next_offset,
                source: key.source,
            });
        });
    }
}
