//! Notes of one's own, in the database of the policy: guide sections 3 and 15.

use axum::Json;
use palisade::prelude::*;
use palisade::sea_orm;
use palisade::sea_orm::ActiveValue::Set;
use palisade::sea_orm::entity::prelude::*;

/// A note.
#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "note")]
pub(crate) struct Model {
    /// Counted up.
    #[sea_orm(primary_key)]
    pub(crate) id: i64,
    /// The user whose it is.
    pub(crate) owner: String,
    /// What was written.
    pub(crate) text: String,
}

/// None.
#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

impl Owned for Entity {
    const OWNER: Column = Column::Owner;
}

/// The routes of notes.
pub(crate) fn router() -> Router<palisade::State> {
    Router::new().route("/notes", get(list).post(write))
}

async fn list(user: User, db: Db) -> Result<Json<Vec<String>>, Refusal> {
    db.create(Entity).await?;
    let notes = db.all(db.of::<Entity>(&user), 100).await?;
    Ok(Json(notes.into_iter().map(|note| note.text).collect()))
}

async fn write(user: User, db: Db, Json(text): Json<String>) -> Result<Json<i64>, Refusal> {
    db.create(Entity).await?;
    let note = ActiveModel { owner: Set(user.id()), text: Set(text), ..Default::default() };
    Ok(Json(db.insert(note).await?.id))
}
